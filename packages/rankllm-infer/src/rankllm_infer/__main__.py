"""`python -m rankllm_infer`: the same program as `rankllm-infer`."""

from rankllm_infer.cli import main

if __name__ == "__main__":
    main()

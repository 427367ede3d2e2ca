"""`python -m rankllm_train`: the same program as `train` and `rankllm-train`."""

from rankllm_train.cli import main

if __name__ == "__main__":
    main()

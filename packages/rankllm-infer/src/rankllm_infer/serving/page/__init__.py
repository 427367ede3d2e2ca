"""Web page of the server: try the model on a query and passages, see what moved and why, copy the request."""

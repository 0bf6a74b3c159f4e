"""What arrives? Traces, clients and sessions as read, and what a load makes of them."""

"""What a scheduler needs Python for: graphs of Python clients, and functions that run beside the scheduler."""

"""Protocol clients of the engines: is it serving, and make the application's account."""

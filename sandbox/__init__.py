"""The world around the services on one machine without Docker: servers, traffic, the demo and its audit."""

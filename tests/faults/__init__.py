"""What the gateway must survive: providers, clients, processes and the database misbehave."""

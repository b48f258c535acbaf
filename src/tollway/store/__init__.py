"""PostgreSQL: embedded server, migrations, configuration, keys, secrets."""

"""The one-machine stack: Label Studio, Redis, the backend and two workers under one supervisor (`make up`)."""

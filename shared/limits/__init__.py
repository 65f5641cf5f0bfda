"""What all workers share in Redis: turns at the provider, its access token, and word that a job is final."""

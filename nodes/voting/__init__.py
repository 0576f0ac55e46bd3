"""The blind vote: ballots that outlive the server."""

"""Does to the real commands what machines do; see docs/reliability.md."""

"""Speed measurements against peers; each writes its result beside itself."""

"""Where rows come from: paths, archives, packages, the hub."""

"""What a message says of a package that is missing."""

INSTALL = 'install it with: pip install "ocp_dc[sample]"'

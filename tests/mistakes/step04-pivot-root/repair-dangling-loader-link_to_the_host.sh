# The link leads to where the loader lies on the host; in the container that is another path.
link=$(find lib* usr/lib* -maxdepth 1 -name 'ld-linux*' -type l | head -n 1)
ln -sf "$WHOLE$(readlink "$link")" "$link"

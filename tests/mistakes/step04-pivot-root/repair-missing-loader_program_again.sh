# The program was copied again: it was whole, and its loader still isn't there.
cp "$WHOLE/usr/bin/ls" usr/bin/ls

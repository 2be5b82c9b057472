# Permission was not what was missing.
chmod 777 usr/local/bin/greet

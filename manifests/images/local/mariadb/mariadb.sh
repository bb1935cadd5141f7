#!/usr/bin/env bash
# mariadb.sh [OPTION...]: the server in the foreground. The first time it makes MARIADB_DATABASE and
# MARIADB_USER with MARIADB_PASSWORD, or the content of the file that MARIADB_PASSWORD_FILE names.
set -euo pipefail

[[ ${1:-} != mariadbd ]] || shift
options=(--no-defaults --datadir=/var/lib/mysql --socket=/run/mysqld/mysqld.sock
    --bind-address=0.0.0.0 --skip-name-resolve "$@")
if [[ ! -d /var/lib/mysql/mysql ]]; then
    mariadb-install-db --no-defaults --datadir=/var/lib/mysql --skip-test-db \
        --auth-root-authentication-method=socket >/dev/null
    password=${MARIADB_PASSWORD:-$(<"${MARIADB_PASSWORD_FILE:?}")}
    # Quotes and backslashes mean themselves.
    password=${password//\\/\\\\}
    password=${password//\'/\'\'}
    {
        echo 'FLUSH PRIVILEGES;'
        echo "CREATE DATABASE \`$MARIADB_DATABASE\`;"
        echo "CREATE USER '$MARIADB_USER'@'%' IDENTIFIED BY '$password';"
        echo "GRANT ALL ON \`$MARIADB_DATABASE\`.* TO '$MARIADB_USER'@'%';"
    } | mariadbd "${options[@]}" --bootstrap
fi
exec mariadbd "${options[@]}"

# shellcheck shell=bash
# A file with one URL a line, which a job names as `endpoints` and reads again while it runs. To be sourced.
# The file is replaced, never edited, so that a reader sees it whole; the lock keeps replicas from losing each other's lines.

add_endpoint() { # FILE URL
  _rewrite_endpoints "$1" "$2" add
}

remove_endpoint() { # FILE URL
  _rewrite_endpoints "$1" "$2" remove
}

_rewrite_endpoints() (
  exec 9>"$1.lock"
  flock 9
  new="$(mktemp "$1.XXXXXX")"
  if [[ -e "$1" ]]; then
    grep -vxF -- "$2" "$1" >"$new" || true # no other line is left
  fi
  if [[ "$3" == add ]]; then
    printf '%s\n' "$2" >>"$new"
  fi
  chmod 644 "$new"
  mv "$new" "$1"
)

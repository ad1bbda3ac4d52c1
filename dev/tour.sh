# Sourced by the README's tour: finds the running `make run`, and defines the commands that the tour's blocks use.
# If it is not running, this prints one sentence that says so, and those commands do nothing.

if [ -x .venv/bin/python ] && FOUND=$(no_proxy='*' .venv/bin/python -m dev.tour); then
  eval "$FOUND" # DEPUTY_URL, DEPUTY_API_KEY and AWS
  # The API, with the admin key.
  api() { curl -sS --noproxy '*' -w '\n' -H "Authorization: Bearer $DEPUTY_API_KEY" -H "Content-Type: application/json" "$@"; }
  # One field of a JSON answer. An answer without that field is printed as it is.
  field() {
    .venv/bin/python -c 'import json, sys
answer = json.load(sys.stdin)
print(answer[sys.argv[1]]) if sys.argv[1] in answer else sys.exit(f"no {sys.argv[1]} in {answer}")' "$1"
  }
  # Print a JSON answer in lines.
  show() { .venv/bin/python -m json.tool; }
  # Create the stack of a launch link, as the administrator of an account.
  launch() { .venv/bin/python -m dev.tour launch "$1" "$2"; }
  # Wait for a tenant's first verified connection, and print its id.
  verified() { .venv/bin/python -m dev.tour verified "$1"; }
  # Wait until the receiver of webhooks heard that a tenant has a verified connection, and print the tenant's events.
  webhooks() { .venv/bin/python -m dev.tour webhooks "$1"; }
  # Run a program with an AWS SDK. Its environment has only the local AWS and the given variables.
  sdk() {
    env -i AWS_ENDPOINT_URL="$AWS" AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1 AWS_CONFIG_FILE=/dev/null \
      AWS_SHARED_CREDENTIALS_FILE=/dev/null "$@"
  }
else
  echo "make run is not running here. Start it in another terminal, in this folder; if it has a DEPUTY_DATA_DIR of its own, export that variable here. Then paste the tour again." >&2
  api() { :; }
  field() { :; }
  show() { :; }
  launch() { :; }
  verified() { :; }
  webhooks() { :; }
  sdk() { :; }
fi

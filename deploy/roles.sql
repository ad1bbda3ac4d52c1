-- Two database roles beside the administrator's: `deputy` owns the tables and is for `migrate` and background workers,
-- which make and detach the audit log's months. `deputy_web` owns nothing and is for web processes. Safe to repeat.
-- Run it in Deputy's database, as its administrator, with the files of the two passwords:
--   OWNER_PASSWORD_FILE=… WEB_PASSWORD_FILE=… psql --file deploy/roles.sql
\set ON_ERROR_STOP on
\set owner_password `cat "$OWNER_PASSWORD_FILE"`
\set web_password `cat "$WEB_PASSWORD_FILE"`
-- Fails without a file: an empty password would close the role to everybody. The statement has no password in it,
-- because PostgreSQL logs a statement that fails.
\set both_are_there `grep -q . "$OWNER_PASSWORD_FILE" && grep -q . "$WEB_PASSWORD_FILE" && echo 1 || echo 0`
SELECT 1 / :both_are_there AS both_passwords_are_there \gset
SET client_min_messages = warning;
SELECT current_database() AS database \gset
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'deputy') THEN
    CREATE ROLE deputy LOGIN;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'deputy_web') THEN
    CREATE ROLE deputy_web LOGIN;
  END IF;
  IF current_user <> 'deputy' THEN -- an administrator who is no superuser must be a member
    GRANT deputy TO CURRENT_USER;
  END IF;
END $$;
ALTER ROLE deputy PASSWORD :'owner_password';
ALTER ROLE deputy_web PASSWORD :'web_password';
ALTER DATABASE :"database" OWNER TO deputy;
GRANT USAGE ON SCHEMA public TO deputy_web;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO deputy_web;
-- Tables of later migrations and months.
ALTER DEFAULT PRIVILEGES FOR ROLE deputy IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO deputy_web;

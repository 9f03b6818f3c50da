"""What each database role may not do: statements that PostgreSQL must refuse with 42501, insufficient privilege."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

ROLES: Final = ("reward_store", "coupon_api", "coupon_consumer", "etl")

_COUPON_TABLES: Final = (
    "coupons",
    "idempotency_keys",
    "consumer_offsets",
    "dead_letters",
    "etl_files",
    "etl_ranges",
    "alembic_version",
)

TABLES: Final[Mapping[str, Sequence[str]]] = {
    "reward_store": ("members", "rewards", "redemptions", "idempotency_keys", "outbox", "alembic_version"),
    "coupon_api": _COUPON_TABLES,
    "coupon_consumer": _COUPON_TABLES,
    "etl": _COUPON_TABLES,
}
"""The tables of each role's database, its own and those of others."""

ON_EVERY_TABLE: Final = (
    "drop table {table}",
    "truncate {table}",
    "alter table {table} add column mine integer",
    "alter table {table} disable trigger all",
    "alter table {table} owner to {role}",
    "create index on {table} ((1))",
    "create trigger mine before insert on {table} execute function suppress_redundant_updates_trigger()",
    "create rule mine as on insert to {table} do instead nothing",
    "create policy mine on {table}",
    "comment on table {table} is 'mine'",
)

ON_THE_SERVER: Final = (
    "create role mine",
    "create role mine superuser",
    "create database mine",
    "alter role lp_owner password 'mine'",
    "alter role {other} password 'mine'",
    "alter role {role} superuser",
    "alter role {role} bypassrls",
    "drop role {other}",
    "grant pg_read_all_data to {role}",
    "grant pg_execute_server_program to {role}",
    "set role {superuser}",
    "set role {other}",
    "set session authorization {other}",
    "set session_replication_role = replica",
    "set log_statement = 'none'",
    "alter system set log_connections = off",
    "select pg_reload_conf()",
    "select pg_read_file('/etc/passwd')",
    "select pg_read_binary_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select pg_stat_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "copy (select 1) to '/tmp/mine'",
    "copy (select 1) to program 'true'",
    "select rolpassword from pg_authid",
    "select passwd from pg_shadow",
    "select * from pg_hba_file_rules",
    "select * from pg_largeobject",
    "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{superuser}'",
    "select pg_cancel_backend(pid) from pg_stat_activity where usename = '{superuser}'",
    "select pg_switch_wal()",
    "select pg_create_restore_point('mine')",
    "select pg_stat_reset()",
    "select pg_create_physical_replication_slot('mine')",
    "create function mine() returns integer language c as 'libc', 'abs'",
)

IN_THE_DATABASE: Final = (
    "set role lp_owner",
    "set session authorization lp_owner",
    "grant lp_owner to {role}",
    "create table mine (id integer)",
    "create temporary table mine (id integer)",
    "create view mine as select 1",
    "create sequence mine",
    "create type mine as enum ('a')",
    "create function mine() returns integer language sql as 'select 1'",
    "create schema mine",
    "create publication mine for all tables",
    "create event trigger mine on ddl_command_start execute function mine()",
    "alter schema public owner to {role}",
    "drop schema public cascade",
    "alter database {database} set statement_timeout = 0",
    "alter database {database} owner to {role}",
    "drop owned by lp_owner",
    "reassign owned by lp_owner to {role}",
    "select * from alembic_version",
    "insert into alembic_version values ('mine')",
    "update alembic_version set version_num = 'mine'",
    "delete from alembic_version",
)

OF_THE_ROLE: Final[Mapping[str, Sequence[str]]] = {
    "reward_store": (
        "insert into members values ('m-1', 1)",
        "insert into rewards values ('rw-1', 'a', 1, 1, 1, 'EUR', 1)",
        "delete from members",
        "delete from rewards",
        "delete from redemptions",
        "delete from redemptions where status = 'issued'",
        "update members set member_id = 'm-2'",
        "update rewards set points_cost = 1",
        "update rewards set value_cents = 1",
        "update redemptions set points_spent = 1",
        "update redemptions set member_id = 'm-2'",
        "update redemptions set coupon_code = '0123456789ABCDEF'",
        "update outbox set payload = ''",
        "update outbox set topic = 'other'",
        "update idempotency_keys set response = ''",
        "update idempotency_keys set created_at = now()",
    ),
    "coupon_api": (
        "delete from coupons",
        "delete from coupons where status = 'redeemed'",
        "update coupons set code = '0123456789ABCDEF'",
        "update coupons set member_id = 'm-2'",
        "update coupons set value_cents = 1",
        "update coupons set expires_at = now()",
        "update coupons set source = 'mine'",
        "update idempotency_keys set response = ''",
        "update idempotency_keys set body_hash = ''",
        "select * from consumer_offsets",
        "insert into consumer_offsets values ('g', 't', 'i', 0, 0)",
        "update consumer_offsets set next_offset = 0",
        "delete from consumer_offsets",
        "select * from dead_letters",
        "update dead_letters set replayed_at = now()",
        "delete from dead_letters",
        "select * from etl_files",
        "select * from etl_ranges",
        "delete from etl_ranges",
    ),
    "coupon_consumer": (
        "delete from coupons",
        "delete from coupons where status = 'redeemed'",
        "update coupons set code = '0123456789ABCDEF'",
        "update coupons set redeemed_at = now()",
        "update coupons set redeemed_at = null, status = 'issued' where status = 'redeemed'",
        "update coupons set source_line = 1",
        "select * from idempotency_keys",
        "insert into idempotency_keys values ('s', 'r', 'k', '', 200, '')",
        "delete from idempotency_keys",
        "delete from consumer_offsets",
        "update dead_letters set payload = ''",
        "update dead_letters set error_class = 'mine'",
        "update dead_letters set failed_at = now()",
        "select * from etl_files",
        "insert into etl_ranges values (1, 0, 1, 1, 2, 1, 0, 0)",
        "delete from etl_ranges",
    ),
    "etl": (
        "delete from coupons",
        "delete from coupons where status = 'issued'",
        "update coupons set code = '0123456789ABCDEF'",
        "update coupons set status = 'issued', redeemed_at = null",
        "update coupons set status = 'cancelled'",
        "update coupons set redeemed_at = now()",
        "update coupons set redemption_id = null",
        "update coupons set version = 1",
        "insert into coupons (code, redeemed_at) values ('0123456789ABCDEF', now())",
        "insert into coupons (code, redemption_id) values ('0123456789ABCDEF', null)",
        "delete from etl_files",
        "update etl_files set content_sha256 = ''",
        "update etl_files set duplicates = 'last'",
        "insert into etl_files (content_sha256, state) values ('', 'loaded')",
        "delete from etl_ranges",
        "update etl_ranges set byte_end = 1",
        "update etl_ranges set line_end = 1",
        "update etl_ranges set rejected = 0",
        "select * from idempotency_keys",
        "insert into idempotency_keys values ('s', 'r', 'k', '', 200, '')",
        "delete from idempotency_keys",
        "select * from consumer_offsets",
        "update consumer_offsets set next_offset = 0",
        "select * from dead_letters",
        "insert into dead_letters (id) values (null)",
        "delete from dead_letters",
    ),
}

_NEEDED: Final = frozenset({("etl", "create temporary table mine (id integer)")})
_ON_ITSELF: Final = frozenset({"alter role lp_owner password 'mine'"})


def forbidden_to(role: str) -> Iterator[str]:
    """Yield each statement that the role may not carry out, names to be filled in.

    The role that migrates owns what is inside the databases, and is as weak as the others outside them.
    """
    if role == "lp_owner":
        yield from (statement for statement in ON_THE_SERVER if statement not in _ON_ITSELF)
        return
    yield from (*ON_THE_SERVER, *OF_THE_ROLE[role])
    yield from (statement for statement in IN_THE_DATABASE if (role, statement) not in _NEEDED)
    yield from (statement.replace("{table}", table) for table in TABLES[role] for statement in ON_EVERY_TABLE)

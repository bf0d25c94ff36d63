"""One refresh: imported with the first one."""

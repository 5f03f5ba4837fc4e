SELECT rows, indexes, pg_size_pretty(bytes) AS size, not_carried FROM hybrid_backup('items', 'attic');

-- A moment as microseconds since 1970.
round(extract(epoch FROM {expression}) * 1000000)::bigint

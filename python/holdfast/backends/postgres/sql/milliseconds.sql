-- A moment as milliseconds since 1970, as all that is asked or told of it counts.
round(extract(epoch FROM date_trunc('milliseconds', {expression})) * 1000)::bigint

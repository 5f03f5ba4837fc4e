-- Distances.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

SET extra_float_digits = -9;
SELECT '[0,0]'::vector <-> '[3,4]' AS l2, '[1,2]'::vector <#> '[3,4]' AS ip, '[1,1]'::vector <=> '[1,0]' AS cosine, '[0,0]'::vector <+> '[3,-4]' AS l1;
SELECT l2_distance('[0,0]', '[3,4]'), inner_product('[1,2]', '[3,4]'), cosine_distance('[1,1]', '[-1,-1]'), l1_distance('[0,0]', '[3,4]');
SELECT vector_l2_squared_distance('[0,0]', '[3,4]'), vector_negative_inner_product('[1,2]', '[3,4]'), vector_spherical_distance('[1,0]', '[0,1]');
-- kept within 0 and 2; NaN for the zero vector
SELECT cosine_distance('[1.1,1.1]', '[1.1,1.1]') >= 0 AS in_range, cosine_distance('[1.1,1.1]', '[-1.1,-1.1]') <= 2 AS in_range;
SELECT cosine_distance('[1,2]', '[0,0]'), cosine_distance('[0,0]', '[0,0]'), vector_spherical_distance('[2,0]', '[-1,0]');
-- single precision overflows to infinity
SELECT l2_distance('[3e38]', '[-3e38]'), inner_product('[3e38]', '[3e38]'), l1_distance('[3e38,3e38]', '[-3e38,0]'), cosine_distance('[3e38]', '[1]');
-- every length that a kernel may treat in another way
SELECT count(*) FROM generate_series(1, 200) dim,
    LATERAL (SELECT array_agg(sin(i))::vector AS a, array_agg(cos(i))::vector AS b,
        sqrt(sum((sin(i) - cos(i)) ^ 2)) AS l2, -sum(sin(i) * cos(i)) AS ip, sum(abs(sin(i) - cos(i))) AS l1,
        1 - sum(sin(i) * cos(i)) / sqrt(sum(sin(i) ^ 2) * sum(cos(i) ^ 2)) AS cosine FROM generate_series(1, dim) i) s
WHERE abs((a <-> b) - l2) < 1e-4 AND abs((a <#> b) - ip) < 1e-4 AND abs((a <+> b) - l1) < 1e-4 AND abs((a <=> b) - cosine) < 1e-4;
SELECT '[1,2,3]'::vector <-> '[1,2,3,4]';
SELECT '[1]'::vector <#> '[1,2]';
SELECT '[1,2]'::vector <=> '[1]';
SELECT '[1,2]'::vector <+> '[1]';
SELECT vector_spherical_distance('[1,2]', '[1]');
SELECT '[1,2]'::vector <-> NULL;

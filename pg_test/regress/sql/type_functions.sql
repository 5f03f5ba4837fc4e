-- Arithmetic, parts and other functions.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS hybridvec;
RESET client_min_messages;

SELECT '[1,2,3]'::vector + '[4,5,6]', '[1,2,3]'::vector - '[4,5,6]', '[1,2,3]'::vector * '[4,5,-6]', '[1,2]'::vector || '[3]';
SELECT '[3e38]'::vector + '[3e38]';
SELECT '[-3e38]'::vector - '[3e38]';
SELECT '[1e20]'::vector * '[1e20]';
SELECT '[1e-30]'::vector * '[1e-30]';
SELECT '[0,1e-30]'::vector * '[1e-30,0]', '[1e-20]'::vector * '[1e-20]';
SELECT '[1,2]'::vector + '[1]';
SELECT '[1,2]'::vector - '[1]';
SELECT '[1,2]'::vector * '[1]';
SELECT vector_dims(array_fill(1, ARRAY[8000])::vector || array_fill(1, ARRAY[8000])::vector);
SELECT array_fill(1, ARRAY[8000])::vector || array_fill(1, ARRAY[8001])::vector;

SELECT vector_dims('[1,2,3]'), vector_norm('[3,4]'), vector_norm('[3e38,3e38]'), vector_norm('[0]');
SELECT l2_normalize('[3,4]'), l2_normalize('[0,0]'), l2_normalize('[3e38]'), l2_normalize('[1e-45]');

SELECT binary_quantize('[1,0,-1]'), binary_quantize('[0,0.1,-0.2,-0.3,0.4,0.5,0.6,-0.7,0.8,-0.9,1]'), length(binary_quantize('[1]'));
SELECT binary_quantize('[1,-1,1,-1,1,-1,1,-1]') = B'10101010', binary_quantize('[1,0]') || B'1';

SELECT subvector('[1,2,3,4,5]', 1, 3), subvector('[1,2,3,4,5]', 3, 9), subvector('[1,2,3,4,5]', -1, 4), subvector('[1,2,3,4,5]', 5, 2147483647);
SELECT subvector('[1,2,3]', 1, 0);
SELECT subvector('[1,2,3]', 1, -1);
SELECT subvector('[1,2,3]', 4, 1);
SELECT subvector('[1,2,3]', -1, 2);
SELECT subvector('[1,2,3]', -2147483648, 2147483647);
SELECT subvector('[1,2,3]', 2147483647, 2147483647);

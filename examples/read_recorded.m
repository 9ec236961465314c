function read_recorded(file)
% READ_RECORDED  Decode the messages of a file that record_stream.py wrote, one line each.
%
%   read_recorded('recorded_stream.bin')

bytes = fopen(file, 'r', 'ieee-le');
closing = onCleanup(@() fclose(bytes));
while true
    length = fread(bytes, 1, 'uint32=>double');
    if isempty(length), break, end
    header_bytes = fread(bytes, length, 'uint8=>uint8');
    pixel_bytes = fread(bytes, fread(bytes, 1, 'uint32=>double'), 'uint8=>uint8');
    [header, image] = decode_message(header_bytes, pixel_bytes);
    fprintf('%s %d %d %d %.4f %.4f\n', header.stream, header.frame, size(image, 1), size(image, 2), ...
        mean(double(image(:))), double(image(3, 6)));
end
end

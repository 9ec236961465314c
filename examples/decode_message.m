function [header, image] = decode_message(header_bytes, pixel_bytes)
% DECODE_MESSAGE  One message of rtdenoise: header (struct) and image (rows x columns), from the uint8 bytes of its two parts.
%
% No toolbox, no socket; runs in MATLAB (R2016b or newer) and in Octave (7 or newer). read_stream.m gets the bytes from the wire.

header = jsondecode(char(header_bytes(:)'));
if ~strcmp(header.htype, 'array-1.0')
    error('rtdenoise:htype', 'not a frame: %s', header.htype);
end
kind = strrep(strrep(header.type, 'float32', 'single'), 'float64', 'double');
pixels = typecast(uint8(pixel_bytes(:)'), kind);
[~, ~, mine] = computer();
if strcmp(header.endianness, 'little') ~= strcmp(mine, 'L')
    pixels = swapbytes(pixels);
end
% Rows come one after the other; MATLAB fills columns first.
image = reshape(pixels, header.shape(2), header.shape(1)).';
end

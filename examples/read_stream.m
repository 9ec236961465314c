function read_stream(endpoint, n_frames)
% READ_STREAM  Show the denoised frames of a running rtdenoise in MATLAB.
%
%   read_stream                                  frames of this computer, until the figure is closed
%   read_stream('tcp://127.0.0.1:5561', 100)     a hundred raw frames
%
% The sockets are those of pyzmq: once, in the Python that `pyenv` names, run `pip install pyzmq`. Always shows the newest frame.

if nargin < 1, endpoint = 'tcp://127.0.0.1:5560'; end
if nargin < 2, n_frames = inf; end
socket = py.zmq.Context.instance().socket(py.zmq.SUB);
closing = onCleanup(@() socket.close());
socket.setsockopt(py.zmq.RCVHWM, int32(64));
socket.subscribe(py.bytes(uint8([])));
socket.connect(endpoint);
picture = [];
n_shown = 0;
while n_shown < n_frames
    while ~int64(socket.poll(int32(200)))
        if ~isempty(picture) && ~isvalid(picture), return, end
        drawnow
    end
    while int64(socket.poll(int32(0)))          % skip to the newest
        parts = cell(socket.recv_multipart());
    end
    [header, image] = decode_message(uint8(parts{1}), uint8(parts{2}));
    if isempty(picture)
        picture = imagesc(image); axis image, colormap gray, colorbar
    elseif ~isvalid(picture)
        return
    end
    picture.CData = image;
    title(sprintf('%s, frame %d', header.stream, header.src_frame))
    drawnow limitrate
    n_shown = n_shown + 1;
end
end

function publish_frames(source, event, varargin) %#ok<INUSD>
% Publish every frame of ScanImage over ZeroMQ, for `rtdenoise run -s scanimage`.
%
% For versions that have no ZeroMQ stream of their own (before ScanImage Premium 2025, or without a resonant vDAQ).
%
% 1. Put the JeroMQ jar (https://github.com/zeromq/jeromq, jeromq-0.6.0.jar) beside this file, and both on MATLAB's path.
% 2. In ScanImage: User Functions, event frameAcquired, function publish_frames, arguments {} or {65179}; tick it.
% 3. On this computer: rtdenoise run -s scanimage
%
% A message is 40 bytes, five little-endian doubles (pixelsPerLine, linesPerFrame, numChannels, timestamp in s, frameNumber),
% then the pixels as little-endian int16, x fastest, then y, then channel. `publish_frames('close')` lets go of the port.
%
% Only this computer can connect, because the socket is bound to 127.0.0.1. The frames are those of ScanImage's display: switch its
% rolling average off, or they are averages. One region of interest and one plane are sent.
persistent context socket
if nargin > 0 && (ischar(source) || isstring(source)) && strcmp(source, 'close')
    if ~isempty(context)
        context.close();
    end
    context = []; socket = [];
    return
end
port = 65179;
if ~isempty(varargin)
    port = varargin{1};
end
if isempty(socket)
    javaaddpath(fullfile(fileparts(mfilename('fullpath')), 'jeromq-0.6.0.jar'));
    context = javaObject('org.zeromq.ZContext');
    kind = javaMethod('valueOf', 'org.zeromq.SocketType', 'PUB');
    socket = context.createSocket(kind);
    socket.setSndHWM(64);  % a listener that is too slow loses frames; it never holds the microscope up
    socket.bind(sprintf('tcp://127.0.0.1:%d', port));
end
hSI = source.hSI;
stripe = hSI.hDisplay.stripeDataBuffer{hSI.hDisplay.stripeDataBufferPointer};
if ~stripe.endOfFrame
    return  % a frame that is shown in stripes is sent once, when its last stripe is in
end
images = stripe.roiData{1}.imageData;  % {channel}{plane}, each (x, y) of int16: in memory x is fastest
[n_columns, n_lines] = size(images{1}{1});
header = double([n_columns, n_lines, numel(images), stripe.frameTimestamp, stripe.frameNumberAcq]);
pixels = cellfun(@(planes) reshape(int16(planes{1}), 1, []), images, 'UniformOutput', false);
socket.send([typecast(header, 'int8'), typecast([pixels{:}], 'int8')]);
end

# The frames of a running rtdenoise in Julia. Once: import Pkg; Pkg.add(["JSON3", "ZMQ"])
#
#   julia read_stream.jl                               # denoised frames of this computer
#   julia read_stream.jl tcp://127.0.0.1:5561          # raw ones
#   julia read_stream.jl recorded_stream.bin           # a file that record_stream.py wrote; needs no ZMQ

using JSON3, Statistics

const KINDS = Dict("uint8" => UInt8, "int8" => Int8, "uint16" => UInt16, "int16" => Int16, "uint32" => UInt32,
    "int32" => Int32, "uint64" => UInt64, "int64" => Int64, "float32" => Float32, "float64" => Float64)

"Header and image (rows x columns) of one message, from the bytes of its two parts."
function decode_message(header_bytes::Vector{UInt8}, pixel_bytes::Vector{UInt8})
    header = JSON3.read(String(copy(header_bytes)))
    header.htype == "array-1.0" || error("not a frame: $(header.htype)")
    pixels = collect(reinterpret(KINDS[header.type], pixel_bytes))
    pixels = header.endianness == "little" ? ltoh.(pixels) : ntoh.(pixels)
    rows, columns = header.shape
    # Rows come one after the other; Julia fills columns first.
    return header, permutedims(reshape(pixels, columns, rows))
end

function report(header_bytes, pixel_bytes)
    header, image = decode_message(header_bytes, pixel_bytes)
    println(join((header.stream, header.frame, size(image, 1), size(image, 2),
            round(mean(Float64.(image)), digits=4), round(Float64(image[3, 6]), digits=4)), " "))
end

part(file) = read(file, ltoh(read(file, UInt32)))

function read_recorded(path)
    open(path) do file
        while !eof(file)
            report(part(file), part(file))
        end
    end
end

function read_stream(endpoint)
    @eval using ZMQ
    Base.invokelatest() do
        socket = ZMQ.Socket(ZMQ.SUB)
        ZMQ.subscribe(socket, "")
        ZMQ.connect(socket, endpoint)
        while true
            report(ZMQ.recv(socket, Vector{UInt8}), ZMQ.recv(socket, Vector{UInt8}))
        end
    end
end

if abspath(PROGRAM_FILE) == @__FILE__
    place = isempty(ARGS) ? "tcp://127.0.0.1:5560" : ARGS[1]
    startswith(place, "tcp://") ? read_stream(place) : read_recorded(place)
end

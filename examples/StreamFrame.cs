// One message of rtdenoise in C#: header and pixels from the bytes of its two parts. Only what .NET Framework and Mono bring, so
// that it goes into a Bonsai Extensions folder as it is (beside DecodeFrame.cs); add a reference to System.Runtime.Serialization.
using System;
using System.IO;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;

namespace RtDenoise
{
    /// <summary>What a header says that most programs need; keys that are not named here are ignored.</summary>
    [DataContract]
    public class FrameHeader
    {
        [DataMember(Name = "htype")] public string HType;
        [DataMember(Name = "stream")] public string Stream;
        [DataMember(Name = "series")] public string Series;
        [DataMember(Name = "shape")] public int[] Shape;
        [DataMember(Name = "type")] public string Type;
        [DataMember(Name = "endianness")] public string Endianness;
        [DataMember(Name = "frame")] public long Frame;
        [DataMember(Name = "src_frame")] public long SourceFrame;
        [DataMember(Name = "complete")] public bool Complete;
        [DataMember(Name = "t_src")] public long DeviceNs;
        [DataMember(Name = "t_in")] public long ArrivalNs;
        [DataMember(Name = "t_out")] public long PublishedNs;
        [DataMember(Name = "chan")] public int Channel;
        [DataMember(Name = "plane")] public int Plane;
    }

    /// <summary>A frame: its header and its bytes, row by row, in the byte order of this computer.</summary>
    public class StreamFrame
    {
        public readonly FrameHeader Header;
        public readonly byte[] Pixels;
        public readonly int BytesPerPixel;

        public int Rows { get { return Header.Shape[0]; } }
        public int Columns { get { return Header.Shape[1]; } }

        /// <summary>Decodes the two parts of a message. Throws InvalidDataException for anything that is not a frame.</summary>
        public StreamFrame(byte[] headerBytes, byte[] pixelBytes)
        {
            var reader = new DataContractJsonSerializer(typeof(FrameHeader));
            using (var text = new MemoryStream(headerBytes)) { Header = (FrameHeader)reader.ReadObject(text); }
            if (Header.HType != "array-1.0" || Header.Shape == null || Header.Shape.Length != 2)
                throw new InvalidDataException("not a frame: " + Header.HType);
            BytesPerPixel = SizeOf(Header.Type);
            if ((long)Rows * Columns * BytesPerPixel != pixelBytes.Length)
                throw new InvalidDataException(pixelBytes.Length + " bytes are not " + Rows + " x " + Columns + " " + Header.Type);
            Pixels = (Header.Endianness != "big") == BitConverter.IsLittleEndian ? pixelBytes : Swapped(pixelBytes, BytesPerPixel);
        }

        /// <summary>One pixel, whatever its type.</summary>
        public double At(int row, int column)
        {
            int at = (row * Columns + column) * BytesPerPixel;
            switch (Header.Type)
            {
                case "uint8": return Pixels[at];
                case "uint16": return BitConverter.ToUInt16(Pixels, at);
                case "int16": return BitConverter.ToInt16(Pixels, at);
                default: return BitConverter.ToSingle(Pixels, at);
            }
        }

        static int SizeOf(string type)
        {
            switch (type)
            {
                case "uint8": return 1;
                case "uint16": case "int16": return 2;
                case "float32": return 4;
                default: throw new InvalidDataException("rtdenoise sends no pixels of type " + type);
            }
        }

        static byte[] Swapped(byte[] bytes, int size)
        {
            var swapped = (byte[])bytes.Clone();
            for (int at = 0; at < swapped.Length; at += size) Array.Reverse(swapped, at, size);
            return swapped;
        }
    }
}

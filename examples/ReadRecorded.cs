// Decodes the messages of a file that record_stream.py wrote, one line each:
//   mcs -r:System.Runtime.Serialization.dll StreamFrame.cs ReadRecorded.cs && mono StreamFrame.exe recorded_stream.bin
using System;
using System.Globalization;
using System.IO;
using RtDenoise;

static class ReadRecorded
{
    static void Main(string[] arguments)
    {
        using (var file = new BinaryReader(File.OpenRead(arguments[0])))
        {
            while (file.BaseStream.Position < file.BaseStream.Length)
            {
                var frame = new StreamFrame(file.ReadBytes(file.ReadInt32()), file.ReadBytes(file.ReadInt32()));
                double sum = 0;
                for (int row = 0; row < frame.Rows; row++)
                    for (int column = 0; column < frame.Columns; column++) sum += frame.At(row, column);
                Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "{0} {1} {2} {3} {4:F4} {5:F4}", frame.Header.Stream,
                    frame.Header.Frame, frame.Rows, frame.Columns, sum / (frame.Rows * frame.Columns), frame.At(2, 5)));
            }
        }
    }
}

// Denoised frames in a Bonsai workflow. Put this file and StreamFrame.cs into the Extensions folder of the workflow, install the
// package Bonsai.ZeroMQ, and connect:  Subscriber (ConnectionString: >tcp://127.0.0.1:5560)  ->  DecodeFrame  ->  ...
// Pixels of raw streams keep their type, denoised ones are 32-bit floats in camera counts.
using System;
using System.ComponentModel;
using System.Linq;
using System.Reactive.Linq;
using System.Runtime.InteropServices;
using Bonsai;
using NetMQ;
using OpenCV.Net;
using RtDenoise;

[Combinator]
[Description("Decodes the messages of rtdenoise into images.")]
[WorkflowElementCategory(ElementCategory.Transform)]
public class DecodeFrame
{
    public IObservable<Mat> Process(IObservable<NetMQMessage> source)
    {
        return source.Select(message => ImageOf(new StreamFrame(message[0].ToByteArray(), message[1].ToByteArray())));
    }

    static Mat ImageOf(StreamFrame frame)
    {
        var image = new Mat(frame.Rows, frame.Columns, DepthOf(frame.Header.Type), 1);
        int bytesPerRow = frame.Columns * frame.BytesPerPixel;
        for (int row = 0; row < frame.Rows; row++)
            Marshal.Copy(frame.Pixels, row * bytesPerRow, IntPtr.Add(image.Data, row * image.Step), bytesPerRow);
        return image;
    }

    static Depth DepthOf(string type)
    {
        switch (type)
        {
            case "uint8": return Depth.U8;
            case "uint16": return Depth.U16;
            case "int16": return Depth.S16;
            default: return Depth.F32;
        }
    }
}

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// splice carries bytes both ways until both ends are done. An end passes on alone; anything else abandons both
// directions, with a TCP RST to the target (RFC 9114 §4.4).
func splice(stream *http3.Stream, target *net.TCPConn) {
	abandon := sync.OnceFunc(func() {
		target.SetLinger(0)
		target.Close()
		stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeConnectError))
		stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeConnectError))
	})
	// A client that stops reading is noticed at once, not only when the target sends.
	stop := context.AfterFunc(stream.Context(), func() {
		if !errors.Is(context.Cause(stream.Context()), quic.ErrStreamClosed) {
			abandon()
		}
	})
	defer stop()
	var up sync.WaitGroup
	up.Go(func() {
		if forward(target, stream) != nil || target.CloseWrite() != nil {
			abandon()
		}
	})
	if forward(stream, target) != nil || stream.Close() != nil {
		abandon()
	}
	up.Wait()
	target.Close()
}

// forward copies until src ends. The wrapping hides shortcuts of TCP connections, which would bring their own buffer.
func forward(dst io.Writer, src io.Reader) error {
	buffer := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buffer)
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, buffer[:])
	return err
}

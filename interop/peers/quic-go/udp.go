package main

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"
	"masque-relay/go-driver"
)

// datagramCapsule is the DATAGRAM capsule (RFC 9297 §3.5).
const datagramCapsule http3.CapsuleType = 0

// readDatagrams keeps the payloads of DATAGRAM frames. It ends with the stream, whose reason readCapsules sees.
func (t *tunnel) readDatagrams() {
	for {
		datagram, err := t.stream.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		t.keep(datagram)
	}
}

// readCapsules keeps the payloads of DATAGRAM capsules, skips other capsules (RFC 9297 §3.2), and sees the end.
func (t *tunnel) readCapsules() {
	capsules := http3.NewCapsuleParser(t.stream)
	for {
		kind, value, err := capsules.Next()
		if err == nil && kind == datagramCapsule {
			var datagram []byte
			datagram, err = io.ReadAll(value)
			t.keep(datagram)
		} else if err == nil {
			err = value.Discard()
		}
		if err != nil {
			t.queue.End(err)
			return
		}
	}
}

// keep takes an HTTP Datagram apart. A context that was not registered is dropped (RFC 9298 §4).
func (t *tunnel) keep(datagram []byte) {
	if number, n, err := quicvarint.Parse(datagram); err == nil && number == 0 {
		t.queue.Put(datagram[n:])
	}
}

func (t *tunnel) sendPayload(number uint64, payload []byte) error {
	datagram := append(quicvarint.Append(nil, number), payload...)
	if t.datagrams {
		return t.stream.SendDatagram(datagram)
	}
	return t.writeCapsule(datagramCapsule, datagram)
}

// writeCapsule writes a capsule in one piece, so that nothing gets between its head and its value.
func (t *tunnel) writeCapsule(kind http3.CapsuleType, value []byte) error {
	var capsule bytes.Buffer
	if err := http3.WriteCapsule(&capsule, kind, value); err != nil {
		return err
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	_, err := t.stream.Write(capsule.Bytes())
	return err
}

func (t *tunnel) sendDatagrams(_ context.Context, request *driver.Request) (any, error) {
	if t.queue == nil {
		return nil, errKind
	}
	return driver.SendEach(request.Payloads, func(payload []byte) error {
		return t.sendPayload(request.Context, payload)
	})
}

func (t *tunnel) receiveDatagrams(ctx context.Context, request *driver.Request) (any, error) {
	if t.queue == nil {
		return nil, errKind
	}
	return map[string][][]byte{"payloads": t.queue.Take(ctx, request.Count)}, nil
}

// maxPayload asks quic-go for more than any packet holds; the refusal names the limit of a DATAGRAM frame, of which
// the quarter stream ID and the context ID take their part.
func (t *tunnel) maxPayload(_ context.Context, _ *driver.Request) (any, error) {
	if t.queue == nil {
		return nil, errKind
	}
	err := t.stream.SendDatagram(make([]byte, 1<<16))
	refusal, ok := errors.AsType[*quic.DatagramTooLargeError](err)
	if !ok {
		return nil, errors.Join(errors.New("no limit"), err)
	}
	prefix := quicvarint.Len(uint64(t.stream.StreamID())/4) + quicvarint.Len(0)
	return map[string]int64{"size": refusal.MaxDatagramPayloadSize - int64(prefix)}, nil
}

func (t *tunnel) sendCapsule(_ context.Context, request *driver.Request) (any, error) {
	if t.queue == nil {
		return nil, errKind
	}
	return nil, t.writeCapsule(http3.CapsuleType(request.Type), request.Value)
}

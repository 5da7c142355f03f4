package main

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
	"masque-relay/go-driver"
)

// largestPayload is the most that a UDP datagram over IPv4 can hold.
const largestPayload = 1<<16 - 1 - 20 - 8

// A tunnel is a masque.Conn, with a queue that is filled as payloads come: its own deadlines cannot be taken back
// (SetReadDeadline with a zero time waits for ever once a deadline has passed), so none are set.
type tunnel struct {
	conn   *masque.Conn
	queue  *driver.Queue
	opened int64 // requests on the connection so far, this one included
	closed atomic.Bool
}

func newTunnel(conn *masque.Conn, opened int64) *tunnel {
	t := &tunnel{conn: conn, queue: driver.NewQueue(), opened: opened}
	go t.read()
	return t
}

// await dials. A context does not end the wait for an answer (masque-go passes it on to the opening of the stream
// only), so a dial that gets none is left behind.
func await(ctx context.Context, client *masque.ClientConn, request *masque.Request) (*masque.Conn, driver.Opened, error) {
	type result struct {
		conn     *masque.Conn
		response *http.Response
		err      error
	}
	dialed := make(chan result, 1)
	go func() {
		conn, response, err := client.Dial(request)
		dialed <- result{conn, response, err}
	}()
	select {
	case r := <-dialed:
		// With a response, an error means that the status is none of success.
		if r.response != nil {
			return r.conn, driver.Refused(r.response), nil
		}
		return nil, driver.Opened{}, r.err
	case <-ctx.Done():
		return nil, driver.Opened{}, driver.Timeout("no answer")
	}
}

func (t *tunnel) read() {
	piece := make([]byte, largestPayload)
	for {
		n, _, err := t.conn.ReadFrom(piece)
		if err != nil {
			t.queue.End(err)
			return
		}
		t.queue.Put(append([]byte{}, piece[:n]...))
	}
}

func (t *tunnel) sendDatagrams(_ context.Context, request *driver.Request) (any, error) {
	if request.Context != 0 {
		return nil, errors.New("masque-go sends in context 0 only")
	}
	return driver.SendEach(request.Payloads, func(payload []byte) error {
		_, err := t.conn.WriteTo(payload, nil)
		return err
	})
}

func (t *tunnel) receiveDatagrams(ctx context.Context, request *driver.Request) (any, error) {
	return map[string][][]byte{"payloads": t.queue.Take(ctx, request.Count)}, nil
}

// maxPayload writes more than any packet holds; the refusal names the limit of a DATAGRAM frame, of which the quarter
// stream ID and the context ID take their part. masque-go hides the stream: its number is below the count of requests.
func (t *tunnel) maxPayload(_ context.Context, _ *driver.Request) (any, error) {
	_, err := t.conn.WriteTo(make([]byte, largestPayload), nil)
	refusal, ok := errors.AsType[*quic.DatagramTooLargeError](err)
	if !ok {
		return nil, errors.Join(errors.New("no limit"), err)
	}
	prefix := quicvarint.Len(uint64(t.opened-1)) + quicvarint.Len(0)
	return map[string]int64{"size": refusal.MaxDatagramPayloadSize - int64(prefix)}, nil
}

// end closes the whole tunnel: masque-go does not end one direction.
func (t *tunnel) end(_ context.Context, _ *driver.Request) (any, error) {
	t.closed.Store(true)
	return nil, t.conn.Close()
}

func (t *tunnel) waitEnd(ctx context.Context, _ *driver.Request) (any, error) {
	if t.closed.Load() {
		return nil, errors.New("masque-go closed both directions: it does not read how the relay's ends")
	}
	end, err := t.queue.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return driver.EndingOf(end)
}

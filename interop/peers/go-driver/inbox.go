package driver

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// inboxLimit bounds what waits for a verb; beyond it QUIC's flow control stops the relay.
const inboxLimit = 1 << 20

// An Inbox reads one stream as it comes, so that its end is noticed without a verb that reads.
type Inbox struct {
	turn  chan struct{} // held by the one verb that reads
	mutex sync.Mutex
	moved sync.Cond // data or err changed, or a verb gave up
	data  bytes.Buffer
	err   error // why nothing more comes
}

// NewInbox starts to read from a stream.
func NewInbox(stream io.Reader) *Inbox {
	b := &Inbox{turn: make(chan struct{}, 1)}
	b.moved.L = &b.mutex
	go b.fill(stream)
	return b
}

func (b *Inbox) fill(stream io.Reader) {
	piece := make([]byte, 1<<16)
	for {
		n, err := stream.Read(piece)
		b.mutex.Lock()
		for b.data.Len() >= inboxLimit {
			b.moved.Wait()
		}
		b.data.Write(piece[:n])
		b.err = err
		b.moved.Broadcast()
		b.mutex.Unlock()
		if err != nil {
			return
		}
	}
}

// Take waits for exactly size bytes, and gives fewer only when the stream ended, which the second result says.
// When the time is over it gives nothing, and nothing is lost.
func (b *Inbox) Take(ctx context.Context, size int) ([]byte, bool, error) {
	var taken bytes.Buffer
	ended := false
	err := b.read(ctx, func(data []byte, end error) (int, bool) {
		n, _ := taken.Write(data[:min(len(data), size-taken.Len())])
		ended = end != nil && n == len(data)
		return n, taken.Len() == size || ended
	})
	if err != nil {
		b.putBack(taken.Bytes())
		return nil, false, err
	}
	return taken.Bytes(), ended, nil
}

// Drain writes everything up to the stream's end to w, and gives how much it was and why the stream ended.
func (b *Inbox) Drain(ctx context.Context, w io.Writer) (size int64, end error, err error) {
	err = b.read(ctx, func(data []byte, ended error) (int, bool) {
		w.Write(data)
		size += int64(len(data))
		end = ended
		return len(data), ended != nil
	})
	return size, end, err
}

// read shows step what is there, each time there is more, until step is done. step says how much it used.
func (b *Inbox) read(ctx context.Context, step func(data []byte, end error) (used int, done bool)) error {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return Timeout("another verb reads this tunnel")
	}
	stop := context.AfterFunc(ctx, func() {
		b.mutex.Lock()
		defer b.mutex.Unlock()
		b.moved.Broadcast()
	})
	defer stop()
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for {
		used, done := step(b.data.Bytes(), b.err)
		b.data.Next(used)
		b.moved.Broadcast()
		if done {
			return nil
		}
		if ctx.Err() != nil {
			return Timeout("the stream goes on, but brought too little")
		}
		b.moved.Wait()
	}
}

func (b *Inbox) putBack(data []byte) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	rest := append(bytes.Clone(data), b.data.Bytes()...)
	b.data.Reset()
	b.data.Write(rest)
	b.moved.Broadcast()
}

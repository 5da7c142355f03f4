package driver

import (
	"context"
	"sync"
)

// queueLimit bounds the payloads that wait for a verb. The newest is dropped, as a full socket would.
const queueLimit = 1 << 16

// A Queue keeps the UDP payloads of one tunnel, and why its stream ended.
type Queue struct {
	mutex    sync.Mutex
	payloads [][]byte
	arrived  chan struct{} // has room for one: something came
	ended    chan struct{}
	err      error // set before ended is closed
}

// NewQueue makes an empty queue.
func NewQueue() *Queue {
	return &Queue{arrived: make(chan struct{}, 1), ended: make(chan struct{})}
}

// Put adds a payload.
func (q *Queue) Put(payload []byte) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if len(q.payloads) < queueLimit {
		q.payloads = append(q.payloads, payload)
	}
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// End says that nothing more comes, and why. Only the first call counts.
func (q *Queue) End(err error) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	if q.err == nil {
		q.err = err
		close(q.ended)
	}
}

// Take waits for count payloads, or gives those that came until the time or the tunnel was over.
func (q *Queue) Take(ctx context.Context, count int) [][]byte {
	taken := make([][]byte, 0, min(count, queueLimit))
	for over := false; ; {
		q.mutex.Lock()
		n := min(count-len(taken), len(q.payloads))
		taken = append(taken, q.payloads[:n]...)
		q.payloads = q.payloads[n:]
		q.mutex.Unlock()
		if over || len(taken) == count {
			return taken
		}
		select {
		case <-q.arrived:
		case <-q.ended:
			over = true
		case <-ctx.Done():
			over = true
		}
	}
}

// Wait waits until the tunnel is over, and gives the reason.
func (q *Queue) Wait(ctx context.Context) (end error, err error) {
	select {
	case <-q.ended:
		return q.err, nil
	case <-ctx.Done():
		return nil, Timeout("the stream goes on")
	}
}

package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/quic-go/quic-go"
)

// Tunnels are the open tunnels by number.
type Tunnels[T any] struct {
	mutex sync.Mutex
	all   map[int]T
}

// Add gives a tunnel its number.
func (t *Tunnels[T]) Add(tunnel T) int {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.all == nil {
		t.all = make(map[int]T)
	}
	number := len(t.all) + 1
	t.all[number] = tunnel
	return number
}

// Get finds the tunnel that a request is about.
func (t *Tunnels[T]) Get(request *Request) (T, error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	tunnel, found := t.all[request.Tunnel]
	if !found {
		return tunnel, fmt.Errorf("no tunnel %d", request.Tunnel)
	}
	return tunnel, nil
}

// On makes a verb of what a tunnel does: it finds the tunnel that a request is about, and keeps the request's deadline.
func (t *Tunnels[T]) On(verb func(T, context.Context, *Request) (any, error)) Verb {
	return func(request *Request) (any, error) {
		tunnel, err := t.Get(request)
		if err != nil {
			return nil, err
		}
		ctx, cancel := request.Deadline()
		defer cancel()
		return verb(tunnel, ctx, request)
	}
}

// SendEach answers `send_datagrams`: payloads that no packet holds are left out of the count.
func SendEach(payloads [][]byte, send func([]byte) error) (any, error) {
	sent := 0
	for _, payload := range payloads {
		err := send(payload)
		if _, tooLarge := errors.AsType[*quic.DatagramTooLargeError](err); tooLarge {
			continue
		}
		if err != nil {
			return nil, err
		}
		sent++
	}
	return map[string]int{"sent": sent}, nil
}

// Opened is the answer to `open`.
type Opened struct {
	Tunnel  int         `json:"tunnel,omitempty"`
	Status  int         `json:"status"`
	Headers [][2]string `json:"headers"`
}

// Refused answers `open` with a status outside of 2xx; Accepted adds the tunnel's number.
func Refused(response *http.Response) Opened {
	return Opened{Status: response.StatusCode, Headers: fields(response.Header)}
}

// Accepted answers `open` for a new tunnel.
func Accepted(response *http.Response, tunnel int) Opened {
	opened := Refused(response)
	opened.Tunnel = tunnel
	return opened
}

// IsAccepted says whether a tunnel exists after this response.
func IsAccepted(response *http.Response) bool {
	return response.StatusCode >= 200 && response.StatusCode <= 299
}

func fields(header http.Header) [][2]string {
	lines := [][2]string{}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			lines = append(lines, [2]string{strings.ToLower(name), value})
		}
	}
	return lines
}

// Header makes the fields of a request from the pairs of `headers`.
func Header(pairs [][2]string) http.Header {
	header := http.Header{}
	for _, pair := range pairs {
		header.Add(pair[0], pair[1])
	}
	return header
}

// An Ending is how the relay's direction of a tunnel ended.
type Ending struct {
	End  string  `json:"end"`
	Code *uint64 `json:"code"`
}

// EndingOf reads the error that ended reading. A connection that went takes its streams with it: a reset without a code.
func EndingOf(end error) (Ending, error) {
	if end == io.EOF {
		return Ending{End: "fin"}, nil
	}
	if reset, ok := errors.AsType[*quic.StreamError](end); ok && reset.Remote {
		code := uint64(reset.ErrorCode)
		return Ending{End: "reset", Code: &code}, nil
	}
	if errors.Is(end, net.ErrClosed) {
		return Ending{End: "reset"}, nil
	}
	return Ending{}, fmt.Errorf("reading stopped on this side: %w", end)
}

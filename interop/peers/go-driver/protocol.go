// Package driver is what the drivers in Go share: the protocol of interop/peers/README.md on standard input and output,
// places for what arrives before a verb asks for it, and one QUIC connection to the relay.
package driver

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

const defaultTimeout = 30 * time.Second

// A Request is one line from the matrix. Which fields mean something depends on the verb.
type Request struct {
	ID        json.RawMessage `json:"id"`
	Verb      string          `json:"verb"`
	URL       string          `json:"url"`
	CA        string          `json:"ca"`
	Template  string          `json:"template"`
	Datagrams *bool           `json:"datagrams"`
	Qlog      string          `json:"qlog"`
	Timeout   float64         `json:"timeout"`
	Kind      string          `json:"kind"`
	Host      string          `json:"host"`
	Port      int             `json:"port"`
	Headers   [][2]string     `json:"headers"`
	Early     []byte          `json:"early"`
	Tunnel    int             `json:"tunnel"`
	Data      []byte          `json:"data"`
	Pattern   *int64          `json:"pattern"`
	End       bool            `json:"end"`
	Size      int             `json:"size"`
	Code      uint64          `json:"code"`
	Payloads  [][]byte        `json:"payloads"`
	Context   uint64          `json:"context"`
	Count     int             `json:"count"`
	Type      uint64          `json:"type"`
	Value     []byte          `json:"value"`
	Via       string          `json:"via"`
}

// Deadline gives a context that ends when the request's time is over.
func (r *Request) Deadline() (context.Context, context.CancelFunc) {
	wait := defaultTimeout
	if r.Timeout > 0 {
		wait = time.Duration(r.Timeout * float64(time.Second))
	}
	return context.WithTimeout(context.Background(), wait)
}

// WithDatagrams says whether H3_DATAGRAM is to be announced.
func (r *Request) WithDatagrams() bool { return r.Datagrams == nil || *r.Datagrams }

// A Verb carries out one request. Its result becomes the answer's `ok`; nil stands for an empty object.
type Verb func(*Request) (any, error)

// Timeout is the error of a verb whose time is over.
func Timeout(waitingFor string) error { return fmt.Errorf("timeout: %s", waitingFor) }

// A greeting is the first line of a driver.
type greeting struct {
	Peer     string   `json:"peer"`
	Version  string   `json:"version"`
	Features []string `json:"features"`
}

type answer struct {
	ID    json.RawMessage `json:"id"`
	OK    any             `json:"ok,omitempty"`
	Error string          `json:"error,omitempty"`
}

// Serve greets, then carries out requests until in ends. Each runs on its own, so a verb that waits stops no other.
func Serve(in io.Reader, out io.Writer, peer string, features []string, verbs map[string]Verb) error {
	var lines sync.Mutex
	write := func(value any) error {
		line, err := json.Marshal(value)
		if err != nil {
			return err
		}
		lines.Lock()
		defer lines.Unlock()
		_, err = out.Write(append(line, '\n'))
		return err
	}
	if err := write(greeting{peer, version(), features}); err != nil {
		return err
	}
	reader := bufio.NewReaderSize(in, 1<<16)
	for {
		line, err := reader.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		request := new(Request)
		if err := json.Unmarshal(line, request); err != nil {
			return fmt.Errorf("not a request: %w", err)
		}
		go func() {
			if err := write(carryOut(request, verbs)); err != nil {
				fmt.Fprintln(os.Stderr, "no answer could be written:", err)
				os.Exit(1)
			}
		}()
	}
}

func carryOut(request *Request, verbs map[string]Verb) answer {
	verb, known := verbs[request.Verb]
	if !known {
		return answer{ID: request.ID, Error: "no verb " + request.Verb}
	}
	result, err := verb(request)
	if err != nil {
		return answer{ID: request.ID, Error: err.Error()}
	}
	if result == nil {
		result = struct{}{}
	}
	return answer{ID: request.ID, OK: result}
}

// version names the released packages that this program was built with.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var names []string
	for _, module := range info.Deps {
		if name, found := strings.CutPrefix(module.Path, "github.com/quic-go/"); found && name != "qpack" {
			names = append(names, name+" "+strings.TrimPrefix(module.Version, "v"))
		}
	}
	return strings.Join(names, ", ")
}

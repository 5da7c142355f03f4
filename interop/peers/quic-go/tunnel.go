package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"masque-relay/go-driver"
)

// A tunnel is one request stream. TCP has an inbox for its content, UDP a queue for its payloads.
type tunnel struct {
	stream    *http3.RequestStream
	datagrams bool // DATAGRAM frames, else DATAGRAM capsules
	writing   sync.Mutex
	inbox     *driver.Inbox
	queue     *driver.Queue
}

// ask sends a request, then what is to be early, then awaits the answer. A refusal gives no tunnel and no error.
func ask(ctx context.Context, session *driver.Session, request *driver.Request) (*tunnel, *http.Response, error) {
	header, err := requestFor(session, request)
	if err != nil {
		return nil, nil, err
	}
	stream, err := session.HTTP.OpenRequestStream(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = driver.Timeout("no stream may be opened")
		}
		return nil, nil, err
	}
	t := &tunnel{stream: stream, datagrams: session.Datagrams && session.HTTP.Settings().EnableDatagrams}
	if request.Kind == "udp" {
		t.queue = driver.NewQueue()
	}
	stop := context.AfterFunc(ctx, func() { t.abandon(http3.ErrCodeRequestCanceled) })
	response, err := t.exchange(header, request.Early)
	if !stop() {
		err = driver.Timeout("no answer")
	}
	if err != nil {
		t.abandon(http3.ErrCodeRequestCanceled)
		return nil, nil, err
	}
	if !driver.IsAccepted(response) {
		t.abandon(http3.ErrCodeNoError)
		return nil, response, nil
	}
	return t, response, nil
}

func (t *tunnel) exchange(header *http.Request, early []byte) (*http.Response, error) {
	if err := t.stream.SendRequestHeader(header); err != nil {
		return nil, err
	}
	var err error
	if len(early) > 0 && t.queue != nil {
		err = t.sendPayload(0, early)
	} else if len(early) > 0 {
		_, err = t.stream.Write(early)
	}
	if err != nil {
		return nil, err
	}
	return t.stream.ReadResponse()
}

// requestFor writes the head of CONNECT (RFC 9114 §4.4), or of CONNECT-UDP (RFC 9298 §3.4).
func requestFor(session *driver.Session, request *driver.Request) (*http.Request, error) {
	header := driver.Header(request.Headers)
	port := strconv.Itoa(request.Port)
	switch request.Kind {
	case "tcp":
		target := net.JoinHostPort(request.Host, port)
		return &http.Request{Method: http.MethodConnect, Host: target, URL: &url.URL{}, Header: header}, nil
	case "udp":
		host := strings.ReplaceAll(url.PathEscape(request.Host), ":", "%3A")
		path := strings.NewReplacer("{target_host}", host, "{target_port}", port).Replace(session.Template)
		target, err := url.Parse("https://" + session.Authority + path)
		if err != nil {
			return nil, err
		}
		header.Set(http3.CapsuleProtocolHeader, "?1")
		return &http.Request{
			Method: http.MethodConnect, Proto: "connect-udp", Host: session.Authority, URL: target, Header: header,
		}, nil
	}
	return nil, unknownKind(request.Kind)
}

// start begins to read what the relay sends.
func (t *tunnel) start() {
	if t.queue == nil {
		t.inbox = driver.NewInbox(t.stream)
		return
	}
	go t.readDatagrams()
	go t.readCapsules()
}

func (t *tunnel) abandon(code http3.ErrCode) {
	t.stream.CancelWrite(quic.StreamErrorCode(code))
	t.stream.CancelRead(quic.StreamErrorCode(code))
}

func (t *tunnel) send(_ context.Context, request *driver.Request) (any, error) {
	if t.inbox == nil {
		return nil, errKind
	}
	t.writing.Lock()
	defer t.writing.Unlock()
	var err error
	if request.Pattern != nil {
		_, err = io.CopyBuffer(t.stream, driver.Pattern(*request.Pattern), make([]byte, 1<<16))
	} else if len(request.Data) > 0 {
		_, err = t.stream.Write(request.Data)
	}
	if err == nil && request.End {
		err = t.stream.Close()
	}
	return nil, err
}

func (t *tunnel) receive(ctx context.Context, request *driver.Request) (any, error) {
	if t.inbox == nil {
		return nil, errKind
	}
	data, ended, err := t.inbox.Take(ctx, request.Size)
	if err != nil {
		return nil, err
	}
	return map[string]any{"data": append([]byte{}, data...), "end": ended}, nil
}

func (t *tunnel) receiveAll(ctx context.Context, _ *driver.Request) (any, error) {
	if t.inbox == nil {
		return nil, errKind
	}
	digest := sha256.New()
	size, end, err := t.inbox.Drain(ctx, digest)
	if err != nil {
		return nil, err
	}
	ending, err := driver.EndingOf(end)
	if err != nil {
		return nil, err
	}
	return struct {
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
		driver.Ending
	}{size, hex.EncodeToString(digest.Sum(nil)), ending}, nil
}

func (t *tunnel) reset(_ context.Context, request *driver.Request) (any, error) {
	t.abandon(http3.ErrCode(request.Code))
	return nil, nil
}

func (t *tunnel) end(_ context.Context, _ *driver.Request) (any, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	return nil, t.stream.Close()
}

func (t *tunnel) waitEnd(ctx context.Context, _ *driver.Request) (any, error) {
	var end, err error
	if t.inbox != nil {
		_, end, err = t.inbox.Drain(ctx, io.Discard)
	} else {
		end, err = t.queue.Wait(ctx)
	}
	if err != nil {
		return nil, err
	}
	if errors.Is(end, io.ErrUnexpectedEOF) {
		return nil, errors.New("the stream ended inside a capsule")
	}
	return driver.EndingOf(end)
}

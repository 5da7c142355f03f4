package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"masque-relay/go-driver"
)

// A connection is a TCP tunnel as net/http and crypto/tls want it.
type connection struct {
	*http3.RequestStream
	session *driver.Session
}

func (c connection) LocalAddr() net.Addr  { return c.session.HTTP.LocalAddr() }
func (c connection) RemoteAddr() net.Addr { return c.session.HTTP.RemoteAddr() }

// Close ends both directions: there is no more to read once the page is there.
func (c connection) Close() error {
	c.CancelRead(quic.StreamErrorCode(http3.ErrCodeNoError))
	return c.RequestStream.Close()
}

// fetch gets a page with TLS and HTTP inside a CONNECT tunnel.
func (p *peer) fetch(request *driver.Request) (any, error) {
	if request.Via != "tcp" {
		return nil, unknownKind(request.Via)
	}
	session, err := p.current.Get()
	if err != nil {
		return nil, err
	}
	trust, err := driver.TLSConfig(request.CA)
	if err != nil {
		return nil, err
	}
	trust.NextProtos = nil // net/http offers h2 and http/1.1 itself
	transport := &http.Transport{
		TLSClientConfig:   trust,
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, session, request)
		},
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := request.Deadline()
	defer cancel()
	return driver.Fetch(ctx, transport, request.URL)
}

func dial(ctx context.Context, session *driver.Session, request *driver.Request) (net.Conn, error) {
	host, port, err := driver.PageAddress(request.URL)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	tunnel, response, err := ask(ctx, session, &driver.Request{
		Kind: "tcp", Host: host, Port: number, Headers: request.Headers,
	})
	if err != nil {
		return nil, err
	}
	if tunnel == nil {
		return nil, fmt.Errorf("the relay answered %d", response.StatusCode)
	}
	return connection{tunnel.stream, session}, nil
}

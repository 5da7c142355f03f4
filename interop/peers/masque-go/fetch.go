package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"masque-relay/go-driver"
)

// fetch gets a page over HTTP/3, whose QUIC packets go through a tunnel of its own.
func (p *peer) fetch(request *driver.Request) (any, error) {
	if request.Via != "udp" {
		return nil, fmt.Errorf("masque-go has no tunnel of kind %q", request.Via)
	}
	trust, err := driver.TLSConfig(request.CA)
	if err != nil {
		return nil, err
	}
	ctx, cancel := request.Deadline()
	defer cancel()
	host, port, err := driver.PageAddress(request.URL)
	if err != nil {
		return nil, err
	}
	conn, answer, err := p.dial(ctx, net.JoinHostPort(host, port), request.Headers)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return nil, fmt.Errorf("the relay answered %d", answer.Status)
	}
	defer conn.Close()
	transport := &http3.Transport{
		TLSClientConfig: trust,
		QUICConfig:      &quic.Config{InitialPacketSize: 1200, DisablePathMTUDiscovery: true},
		Dial: func(ctx context.Context, _ string, trust *tls.Config, config *quic.Config) (*quic.Conn, error) {
			return quic.DialEarly(ctx, conn, conn.RemoteAddr(), trust, config)
		},
	}
	defer transport.Close()
	return driver.Fetch(ctx, transport, request.URL)
}

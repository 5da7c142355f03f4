// The driver for masque-go: CONNECT-UDP, with many tunnels on one connection. What it is asked is in ../README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"maps"
	"net"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/yosida95/uritemplate/v3"
	"masque-relay/go-driver"
)

// packetSize is what masque-go itself dials with, so that QUIC's 1200 bytes fit inside (RFC 9298 §6.1).
const packetSize = 1350

var features = []string{"udp", "headers", "ends", "max-payload", "goaway", "closed", "fetch-udp", "settings"}

// A peer is the state of one process: one connection and its tunnels.
type peer struct {
	current driver.Current
	tunnels driver.Tunnels[*tunnel]
	opened  atomic.Int64 // requests on the current connection
}

func main() {
	p := &peer{}
	verbs := map[string]driver.Verb{
		"connect":           p.connect,
		"open":              p.open,
		"end":               p.tunnels.On((*tunnel).end),
		"wait_end":          p.tunnels.On((*tunnel).waitEnd),
		"send_datagrams":    p.tunnels.On((*tunnel).sendDatagrams),
		"receive_datagrams": p.tunnels.On((*tunnel).receiveDatagrams),
		"max_payload":       p.tunnels.On((*tunnel).maxPayload),
		"fetch":             p.fetch,
	}
	connection := p.current.Verbs()
	delete(connection, "migrate") // quic.DialAddr gives a client connection IDs of length zero: quic-go cannot move them
	maps.Copy(verbs, connection)
	err := driver.Serve(os.Stdin, os.Stdout, "masque-go", features, verbs)
	p.current.Close()
	if err != nil {
		log.Fatal(err)
	}
}

// connect dials as masque-go's own Transport does.
func (p *peer) connect(request *driver.Request) (any, error) {
	p.opened.Store(0)
	return p.current.Connect(request, quic.DialAddr, quic.Config{InitialPacketSize: packetSize})
}

func (p *peer) open(request *driver.Request) (any, error) {
	if request.Kind != "udp" {
		return nil, fmt.Errorf("masque-go has no tunnel of kind %q", request.Kind)
	}
	ctx, cancel := request.Deadline()
	defer cancel()
	target := net.JoinHostPort(request.Host, strconv.Itoa(request.Port))
	conn, answer, err := p.dial(ctx, target, request.Headers)
	if err != nil {
		return nil, err
	}
	if conn == nil {
		return answer, nil
	}
	answer.Tunnel = p.tunnels.Add(newTunnel(conn, p.opened.Load()))
	return answer, nil
}

// dial asks for a tunnel. A refusal gives no connection and no error.
func (p *peer) dial(ctx context.Context, target string, headers [][2]string) (*masque.Conn, driver.Opened, error) {
	session, err := p.current.Get()
	if err != nil {
		return nil, driver.Opened{}, err
	}
	template, err := uritemplate.New("https://" + session.Authority + session.Template)
	if err != nil {
		return nil, driver.Opened{}, err
	}
	request, err := masque.NewRequest(ctx, template, target)
	if err != nil {
		return nil, driver.Opened{}, err
	}
	for _, pair := range headers {
		request.Header().Add(pair[0], pair[1])
	}
	p.opened.Add(1)
	return await(ctx, masque.NewClientConn(session.HTTP), request)
}

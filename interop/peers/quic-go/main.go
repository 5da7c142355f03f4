// The driver for quic-go's http3: CONNECT, and CONNECT-UDP by extended CONNECT with the package's own datagrams and
// capsules. What it is asked is in ../README.md.
package main

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"os"

	"github.com/quic-go/quic-go"
	"masque-relay/go-driver"
)

var features = []string{
	"tcp", "udp", "headers", "early", "reset", "ends", "contexts", "capsules", "no-datagrams", "max-payload",
	"migration", "goaway", "closed", "fetch-tcp", "settings",
}

// A peer is the state of one process: one connection and its tunnels.
type peer struct {
	current driver.Current
	tunnels driver.Tunnels[*tunnel]
}

func main() {
	p := &peer{}
	verbs := map[string]driver.Verb{
		"connect":           p.connect,
		"open":              p.open,
		"send":              p.tunnels.On((*tunnel).send),
		"receive":           p.tunnels.On((*tunnel).receive),
		"receive_all":       p.tunnels.On((*tunnel).receiveAll),
		"reset":             p.tunnels.On((*tunnel).reset),
		"end":               p.tunnels.On((*tunnel).end),
		"wait_end":          p.tunnels.On((*tunnel).waitEnd),
		"send_datagrams":    p.tunnels.On((*tunnel).sendDatagrams),
		"receive_datagrams": p.tunnels.On((*tunnel).receiveDatagrams),
		"max_payload":       p.tunnels.On((*tunnel).maxPayload),
		"send_capsule":      p.tunnels.On((*tunnel).sendCapsule),
		"fetch":             p.fetch,
	}
	maps.Copy(verbs, p.current.Verbs())
	err := driver.Serve(os.Stdin, os.Stdout, "quic-go", features, verbs)
	p.current.Close()
	if err != nil {
		log.Fatal(err)
	}
}

func (p *peer) connect(request *driver.Request) (any, error) {
	return p.current.Connect(request, driver.DialTransport, quic.Config{})
}

func (p *peer) open(request *driver.Request) (any, error) {
	session, err := p.current.Get()
	if err != nil {
		return nil, err
	}
	ctx, cancel := request.Deadline()
	defer cancel()
	tunnel, response, err := ask(ctx, session, request)
	if err != nil {
		return nil, err
	}
	if tunnel == nil {
		return driver.Refused(response), nil
	}
	tunnel.start()
	return driver.Accepted(response, p.tunnels.Add(tunnel)), nil
}

var errKind = errors.New("not a verb for this kind of tunnel")

func unknownKind(kind string) error { return fmt.Errorf("no kind of tunnel %q", kind) }

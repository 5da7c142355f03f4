// A CONNECT-UDP proxy made of masque-go's Proxy and quic-go's HTTP/3 server, without authentication: to play cases
// against, and to measure beside the relay. It does what masque-go's own cmd/proxy does.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

const (
	// Tunnels of one connection; quic-go's default of 100 is below what the cases open at once.
	maxStreams = 4096
	// How long tunnels may go on after the proxy was asked to stop.
	grace = 2 * time.Second
)

func main() {
	listen := flag.String("listen", "127.0.0.1:4433", "address and UDP port")
	certificate := flag.String("cert", "", "PEM file of the certificate chain")
	key := flag.String("key", "", "PEM file of the private key")
	path := flag.String("template", "/.well-known/masque/udp/{target_host}/{target_port}/", "path of the URI template")
	flag.Parse()
	if err := run(*listen, *certificate, *key, *path); err != nil {
		log.Fatal(err)
	}
}

func run(listen, certificate, key, path string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	address, err := net.ResolveUDPAddr("udp", listen)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	proxy := new(masque.Proxy)
	handler, err := handle(proxy, socket.LocalAddr().String(), path)
	if err != nil {
		return err
	}
	server := &http3.Server{
		TLSConfig:       http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig:      &quic.Config{MaxIncomingStreams: maxStreams},
		EnableDatagrams: true,
		Handler:         handler,
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		waitForSignal()
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		server.Shutdown(ctx) // with GOAWAY; closes what is left when the time is over
		proxy.Close()
	}()
	fmt.Println("listening on", socket.LocalAddr())
	if err := server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

// handle answers what fits the template, and 404 to all else.
func handle(proxy *masque.Proxy, authority, path string) (http.Handler, error) {
	template, err := uritemplate.New("https://" + authority + path)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		r.Host = authority // masque-go holds it to the template's; clients may know this proxy by other names
		request, err := masque.ParseProxyRequest(r, template)
		if err != nil {
			status := http.StatusBadRequest
			if refusal, ok := errors.AsType[*masque.ProxyRequestParseError](err); ok {
				status = refusal.HTTPStatus
			}
			w.WriteHeader(status)
			return
		}
		proxy.Proxy(w, request)
	})
	return mux, nil
}

func waitForSignal() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	<-asked
}

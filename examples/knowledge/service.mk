// A service: for every order that arrives it writes an invoice, once, whatever is killed when.
//
//   morphogen loop run examples/knowledge/service.mk Invoices --live --workspace /tmp/invoices --run invoices
//   (another terminal)  python -c "
//   from morphogen.bus.bus import Bus
//   from morphogen.schemas import Signal
//   with Bus.open() as bus:
//       bus.emit(Signal(name='order', values={'id': 7, 'amount': 12.5}), run='shop', msg_id='order-7')"
//
// Ctrl-C stops it; `morphogen loop resume invoices` goes on with the first order that it has not seen.

system Shop {
    model {
        state total: float = 0.0
    }

    trace_schema {
        variant TraceItem {
            case Sale { order: int, amount: float }
        }
    }

    knowledge {
        fact is_large(t: TraceItem.Sale) { return t.amount > 1000 }
        rule "Look at it" { when: is_large, apply: "tell somebody" }
    }

    service_loop Invoices {
        on order(id, amount) {
            total = total + amount
            emit TraceItem.Sale { order: id, amount: amount }
            tool.write { path: "invoice-{{id}}.txt", content: "order {{id}}: {{amount}}\n" }
            tool.write {
                path: "journal.txt"
                content: "{{id}} {{amount}} {{total}}\n"
                mode: append
            }
        }
    }
}

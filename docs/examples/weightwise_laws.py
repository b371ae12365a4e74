"""What a number format costs, how long training pays, and the best use of computing."""

from weightwise.laws import CAPYBARA, Settings, best_layout, optimal_training, predict

for fmt in (None, "e4m3", "e2m1"):
    asked = Settings.of(num_params=1e8, num_tokens=5e10, fmt=fmt, block=128)
    answer = predict(CAPYBARA, asked)
    tokens = CAPYBARA.critical_tokens(asked)[0]
    name = fmt or "16 bits"
    print(f"{name:8} loss {answer.loss[0]:.4f}, worse beyond {tokens:.3g} tokens")

print("8 bits are split best as E{}M{}".format(*best_layout(8).best))
best = optimal_training(compute=1e21)
size, data = best.num_params, best.num_tokens
print(f"1e21 FLOP: {best.bits:.2f} bits, {size:.3g} parameters, {data:.3g} tokens")

for warning in predict(CAPYBARA, Settings.of(1e9, 5e10, "e5m5")).warnings:
    print(f"warning: {warning}")

"""The coefficients of formula32.h and formula64.h: polynomials that are least squares fits of what is left of a
function once its shape is taken out, at Chebyshev nodes, weighted for relative error of the function itself.
Needs numpy and mpmath; prints C initialisers, lowest power first. Run by hand when a formula changes."""
import mpmath as mp
import numpy as np

mp.mp.dps = 50


def fit(name, f, low, high, degree, weight=lambda x: 1, rounded=np.float64, rounds=30):
    """f on [low, high] by a polynomial; the weights are moved towards where the error is largest (Lawson)."""
    n = 40 * (degree + 1)
    x = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    y = [f(t) for t in x]
    w = [mp.mpf(weight(t)) for t in x]
    lawson = [mp.mpf(1)] * n
    scale = max(abs(low), abs(high))
    for _ in range(rounds if degree < 9 else 6):
        a = mp.matrix(degree + 1, degree + 1)
        b = mp.matrix(degree + 1, 1)
        powers = [[(t / scale) ** i for i in range(degree + 1)] for t in x]
        for k in range(n):
            q = (w[k] ** 2) * lawson[k]
            for i in range(degree + 1):
                b[i] += q * powers[k][i] * y[k]
                for j in range(i + 1):
                    a[i, j] += q * powers[k][i] * powers[k][j]
        for i in range(degree + 1):
            for j in range(i):
                a[j, i] = a[i, j]
        c = mp.lu_solve(a, b)
        error = [abs(w[k] * (sum(c[i] * powers[k][i] for i in range(degree + 1)) - y[k])) for k in range(n)]
        total = sum(lawson[k] * error[k] for k in range(n))
        lawson = [lawson[k] * error[k] / total * n for k in range(n)]
    c = [c[i] / scale ** i for i in range(degree + 1)]
    print(f"/* {name}: error 2^{float(mp.log(max(error), 2)):.1f} */")
    print("{" + ", ".join((float(rounded(float(v)))).hex() + ("f" if rounded is np.float32 else "") for v in c) + "}")


def main():
    f32 = np.float32
    half = mp.log(2) / 2 * mp.mpf("1.01")
    quarter = mp.pi / 4 * mp.mpf("1.001")
    tail = lambda g, x, taken, power: (g(x) - taken(x)) / x ** power
    fit("exp32: (e^x - 1 - x) / x^2", lambda x: tail(mp.exp, x, lambda t: 1 + t, 2), -half, half, 5,
        lambda x: x * x, f32)
    low, high = mp.sqrt(mp.mpf(1) / 2) * mp.mpf("0.999") - 1, mp.sqrt(2) * mp.mpf("1.001") - 1
    fit("log32: (log(1 + x) - x + x^2 / 2) / x^3",
        lambda x: tail(mp.log1p, x, lambda t: t - t * t / 2, 3), low, high, 8, lambda x: x ** 3 / mp.log1p(x), f32)
    fit("sin32: (sin r - r) / r^3 in r^2", lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, mp.mpf("1e-9"),
        quarter ** 2, 3, lambda z: z, f32)
    fit("cos32: (cos r - 1 + r^2 / 2) / r^4 in r^2", lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z ** 2,
        mp.mpf("1e-6"), quarter ** 2, 3, lambda z: z ** 2, f32)
    near = mp.mpf("0.875")
    fit("erf32: erf(x) / x - 1 in x^2, below 0.875", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
        mp.mpf("1e-9"), (near * mp.mpf("1.001")) ** 2, 5, lambda z: 1, f32, 15)
    fit("erf32: log2(1 - erf(x)) above", lambda x: mp.log(mp.erfc(x), 2), near * mp.mpf("0.999"), mp.mpf("3.95"), 6,
        lambda x: mp.log(2) * mp.erfc(x) / mp.erf(x), f32, 15)
    fit("erf32: 2^x", lambda x: mp.power(2, x), mp.mpf("-0.5"), mp.mpf("0.5"), 5, lambda x: mp.power(2, -x), f32, 15)
    fit("atan32: (atan x - x) / x^3 in x^2", lambda z: (mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, mp.mpf("1e-9"),
        mp.mpf(1), 9, lambda z: z, f32)
    fit("asin32: (asin x - x) / x^3 in x^2", lambda z: (mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, mp.mpf("1e-9"),
        mp.mpf("0.2501"), 5, lambda z: z, f32)
    fit("log64 for pow: (atanh s) / s - 1 over s^2 in s^2", lambda z: (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
        mp.mpf("1e-9"), mp.mpf("0.0296"), 5, lambda z: z)
    fit("exp2 for pow: (2^x - 1) / x", lambda x: (mp.power(2, x) - 1) / x, mp.mpf("-0.5"), mp.mpf("0.5"), 7,
        lambda x: x)
    fit("log64: (atanh s) / s - 1 over s^2 in s^2", lambda z: (mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
        mp.mpf("1e-9"), mp.mpf("0.0296"), 7, lambda z: z)
    fit("exp64: (e^x - 1 - x) / x^2", lambda x: tail(mp.exp, x, lambda t: 1 + t, 2), -half, half, 10,
        lambda x: x * x)
    fit("sin64", lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, mp.mpf("1e-9"), quarter ** 2, 6, lambda z: z)
    fit("cos64", lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z ** 2, mp.mpf("1e-6"), quarter ** 2, 6,
        lambda z: z ** 2)


if __name__ == "__main__":
    main()
